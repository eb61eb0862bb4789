# An example bare-metal host: NVMe, UEFI, unattended upgrades with a way back, and the relay as a
# process of its own, so that a busy relay has a core for itself.
{ lib, ... }:
{
  imports = [
    ./common.nix
    (import ./disko.nix { device = "/dev/nvme0n1"; })
  ];
  nixpkgs.hostPlatform = lib.mkDefault "x86_64-linux";
  networking.hostName = "headwater-metal";
  networking.useDHCP = true;
  boot.loader.systemd-boot.enable = true;
  boot.loader.efi.canTouchEfiVariables = true;
  boot.initrd.availableKernelModules = [ "nvme" "xhci_pci" "ahci" "usbhid" "sd_mod" ];
  hardware.cpu.intel.updateMicrocode = lib.mkDefault true;
  hardware.cpu.amd.updateMicrocode = lib.mkDefault true;

  services.headwater = {
    settings.derp.server = {
      separate = true;
      listen = [ "0.0.0.0:8443" "[::]:8443" ];
    };
    upgrade = {
      enable = true;
      flake = "github:example/machines#metal";
    };
  };
}
