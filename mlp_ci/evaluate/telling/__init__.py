"""What is told of an evaluation, from stored facts only: tables, the comment, the page, the model card."""
