"""Images and masks in and out, one module a format."""
