# An example host that is made into images (live ISO, disks of virtual machines, clouds): disks and boot
# loader are the image's matter. No secret is in it: put those there before the first start.
{ lib, ... }:
{
  imports = [ ./common.nix ];
  networking.hostName = "headwater";
  networking.useDHCP = lib.mkDefault true;
}
