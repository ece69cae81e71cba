"""Break things on purpose, at random moments and places, and see that nothing is lost and nothing is silent."""
