"""What things are: records, closed sets and pure rules. Imports nothing of the rest of the house."""
