"""Who corrects."""
