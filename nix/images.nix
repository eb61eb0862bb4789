# Images of a host, by their usual names: what `nixos-rebuild build-image` makes, as packages of a flake.
# Nothing where nixpkgs has no images (before NixOS 25.05).
host:
let
  images = host.config.system.build.images or { };
  # BIOS where there is one: so do most virtual machines.
  firmware = if host.pkgs.stdenv.hostPlatform.isx86 then "" else "-efi";
  names = {
    iso = "iso";
    qcow2 = "qemu${firmware}";
    raw = "raw${firmware}";
    qcow2-efi = "qemu-efi";
    raw-efi = "raw-efi";
    amazon = "amazon";
    azure = "azure";
    digital-ocean = "digital-ocean";
    google-compute = "google-compute";
    hyperv = "hyperv";
    linode = "linode";
    openstack = "openstack";
    oracle = "oci";
    proxmox = "proxmox";
    proxmox-lxc = "proxmox-lxc";
    virtualbox = "virtualbox";
    vmware = "vmware";
  };
  present = builtins.filter (name: images ? ${names.${name}}) (builtins.attrNames names);
in
builtins.listToAttrs (map (name: { inherit name; value = images.${names.${name}}; }) present)
