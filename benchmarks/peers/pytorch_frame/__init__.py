"""What pytorch_frame trains."""
