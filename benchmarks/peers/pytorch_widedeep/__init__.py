"""What pytorch_widedeep trains."""
