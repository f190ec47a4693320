"""What is predicted: the kinds of targets, their classes, and the rows and parts that have them."""
