"""The pages and plots about an evaluation."""
