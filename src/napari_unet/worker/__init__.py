"""The process that computes, so that the window never waits."""
