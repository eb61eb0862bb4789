"""Policy text to who may reach whom."""
