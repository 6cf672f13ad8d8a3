"""The demo model: a very small vision-language model, its pictures, training and scoring."""
