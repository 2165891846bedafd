"""The worker host: claims jobs, runs them, reports how they ended. Gets a job source and runtimes, never a database."""
