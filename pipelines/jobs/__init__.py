"""What can be run, one file a system."""
