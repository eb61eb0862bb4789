"""Every command of README's Ansible part, docs/ansible.md and docs/upgrade.md, as it is printed."""
