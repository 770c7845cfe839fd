"""Long jobs as generators that yield progress and return a result."""
