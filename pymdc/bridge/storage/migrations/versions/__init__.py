"""Each module is a step, named by the schema that it makes."""
