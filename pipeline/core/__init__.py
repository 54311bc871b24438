"""What every room may use: errors, versions, text, time, files, progress. Imports no other room."""
