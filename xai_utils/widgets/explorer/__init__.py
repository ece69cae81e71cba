"""The explorer of notebook 10: choose model, input, class and methods; see their maps side by side."""
