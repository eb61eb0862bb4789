# The client that stories drive: a stock client of the newest release that they are tested with, as a
# library, with a small control socket.
{ buildGoModule, release ? "1.102" }:
buildGoModule {
  pname = "headwater-test-node";
  version = release;
  src = ../tests/interop/node;
  postPatch = "cp clients/${release}/go.mod clients/${release}/go.sum .";
  # Of what `go mod vendor` gives for these two files.
  vendorHash = "sha256-hBv8g7ew2IMJHDBL4gJ6uygkIAvNi7mJFFCV+kxD7pQ=";
  env.CGO_ENABLED = 0;
  tags = [ "ts_debug_websockets" ];
  subPackages = [ "." ];
  postInstall = ''mv "$out"/bin/* "$out/bin/headwater-test-node"'';
  doCheck = false;
}
