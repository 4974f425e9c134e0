"""What must the images show that a generator looks at? See docs/generators.md."""
