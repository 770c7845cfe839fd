"""A network put together layer by layer, from the operations of somebody's file."""
