"""What live data is compared with, what is usual there, and the decision."""
