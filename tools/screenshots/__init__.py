"""Pictures of the page for docs/images, taken of the real page before real services."""
