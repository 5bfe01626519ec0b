"""What the dashboard is drawn with; widgets translate a RunView into cells and decide nothing."""
