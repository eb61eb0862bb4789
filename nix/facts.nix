# What is the same on every box, and what a site file may hold: written by `headwater deploy facts`
# from the program itself, so that NixOS and Ansible cannot differ.
builtins.fromJSON (builtins.readFile ../appliance/deploy/facts.json)
