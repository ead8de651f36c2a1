"""Pictures that the jobs leave behind."""
