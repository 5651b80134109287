"""One stage a file; they meet in files, never in imports."""
