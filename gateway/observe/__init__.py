"""What people who run Hilum see: logs. Never patient data."""
