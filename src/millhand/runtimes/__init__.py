"""Run one job's code: one file per language over a shared launcher. Knows neither database nor HTTP."""
