"""Another head on any network: where its last map is, what was cut, what stands there now."""
