"""The trained networks that come with the package, NAME.safetensors; `unsmear export` writes such files."""
