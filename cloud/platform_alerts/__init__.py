"""What Grafana found wrong with the platform itself, as notices of the application."""
