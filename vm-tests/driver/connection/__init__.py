"""What Ansible loads by itself."""
