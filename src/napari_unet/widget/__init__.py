"""The dock: the only folder that knows napari and Qt."""
