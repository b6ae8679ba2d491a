"""What the user hands over, turned into what kernels eat."""
