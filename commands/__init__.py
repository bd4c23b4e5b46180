"""One file per operation. A new operation is one file here and its test."""
