# An example VPS: one virtual disk, BIOS or UEFI, address by DHCP.
{ lib, ... }:
{
  imports = [
    ./common.nix
    (import ./disko.nix { device = "/dev/vda"; })
  ];
  nixpkgs.hostPlatform = lib.mkDefault "x86_64-linux";
  networking.hostName = "headwater-vps";
  networking.useDHCP = true;
  boot.loader.grub = {
    efiSupport = true;
    efiInstallAsRemovable = true;
  };
  boot.initrd.availableKernelModules = [ "virtio_pci" "virtio_blk" "virtio_scsi" "ahci" "sd_mod" ];
}
