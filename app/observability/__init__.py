"""What the process says about itself: metrics, logs and health."""
