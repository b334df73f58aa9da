"""What happens to faces on their way to a model, one file each."""
