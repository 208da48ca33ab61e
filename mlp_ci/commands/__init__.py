"""The commands, one short function each, by what they are for. Each imports its flow when it runs."""
