"""The CPU processes of Hilum: everything that talks to hospitals. Never loads torch, never decodes pixels."""
