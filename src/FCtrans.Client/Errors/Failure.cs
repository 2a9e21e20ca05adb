using System.Runtime.CompilerServices;

namespace FCtrans.Client;

/// <summary>
/// Every text of an error that a user can meet. The method's name is the error id that scripts see, so an id without a text,
/// or a text under two ids, cannot exist.
/// </summary>
public static class Failure
{
#pragma warning disable CS1591 // Each method is its own text.
    // Connecting

    public static FCtransException HostUnreachable(string host, int port, string reason, Exception? inner = null) => New(
        FailureKind.Connection, $"'{host}' can't be reached on port {port}: {Sentence(reason)}",
        "Check the name, that sshd runs there, and that no firewall is in between.", host, inner);

    public static FCtransException ConnectionLost(string host, string reason, Exception? inner = null) => New(
        FailureKind.Connection, $"The connection to '{host}' broke: {Sentence(reason)}",
        "A running migration goes on without it: use Get-SplitMigration once the host answers again.", host, inner);

    public static FCtransException AuthenticationFailed(string host, string user, string reason, Exception? inner = null) => New(
        FailureKind.Security, $"'{host}' refused the user '{user}': {Sentence(reason)}",
        "Give -KeyFile or -Credential that this host accepts, and check -UserName.", host, inner);

    public static FCtransException NoCredential(string host, string looked) => New(
        FailureKind.Security, $"There is no key to log on to '{host}' with (looked for {looked}).",
        "Give -KeyFile or -Credential.", host);

    public static FCtransException KeyFileUnusable(string path, string reason, Exception? inner = null) => New(
        FailureKind.InvalidArgument, $"The key file '{path}' can't be used: {Sentence(reason)}",
        "Give a private key in OpenSSH, PEM or PuTTY format; its passphrase goes into -Credential's password.", path, inner);

    public static FCtransException HostKeyUnknown(string host, string keyType, string fingerprint, string file) => New(
        FailureKind.Security,
        $"The host key of '{host}' is not known: {keyType} {fingerprint} is not in '{file}'.",
        "Compare the fingerprint with the host's own (ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub there), then say "
        + "-AcceptHostKey to accept and remember it.", host);

    public static FCtransException HostKeyChanged(string host, string keyType, string fingerprint, string where) => New(
        FailureKind.Security,
        $"The host key of '{host}' has CHANGED: it shows {keyType} {fingerprint}, but {where} has another. "
        + "Somebody may be pretending to be this host.",
        $"If the host was set up anew, remove the old line, or say -HostKeyFingerprint '{fingerprint}' to replace it.", host);

    public static FCtransException HostKeyRevoked(string host, string fingerprint, string where) => New(
        FailureKind.Security, $"The host key {fingerprint} that '{host}' shows is marked as revoked in {where}.",
        "Never connect to it; give the host a new key.", host);

    public static FCtransException KnownHostsUnusable(string path, string reason, Exception? inner = null) => New(
        FailureKind.InvalidArgument, $"The known-hosts file '{path}' can't be used: {Sentence(reason)}",
        "Name another with -KnownHostsFile.", path, inner);

    public static FCtransException SshConfigUnusable(string path, string reason, Exception? inner = null) => New(
        FailureKind.InvalidArgument, $"The SSH configuration '{path}' can't be used: {Sentence(reason)}",
        "Mend it, name another with -SshConfigFile, or say -SshConfigFile none.", path, inner);

    public static FCtransException SudoRefused(string host, string user, string reason) => New(
        FailureKind.Security, $"'{user}' may not use sudo on '{host}' without a password: {Sentence(reason)}",
        $"Allow it there: '{user} ALL=(root) NOPASSWD: ALL' in a file of /etc/sudoers.d. Or connect as root.", host);

    public static FCtransException HostNotConnected(string name) => New(
        FailureKind.NotFound, $"There is no connection to a host '{name}'.",
        $"Use Connect-KvmHost -HostName '{name}' first; Get-KvmHost lists the connections.", name);

    public static FCtransException NoHostConnected() => New(
        FailureKind.NotFound, "No host is connected.", "Use Connect-KvmHost first.", null);

    // The agent

    public static FCtransException AgentPackageMissing(string path) => New(
        FailureKind.NotFound, $"The agent for the hosts is missing from the module: there is no file '{path}'.",
        "Install the module anew, or run ./build.sh Build.", path);

    public static FCtransException HostUnsupported(string host, string system) => New(
        FailureKind.NotSupported, $"'{host}' runs {system}; FCtrans has an agent for Linux x86_64 only.", "", host);

    public static FCtransException AgentUploadFailed(string host, string reason, Exception? inner = null) => New(
        FailureKind.OperationFailed, $"The agent could not be put on '{host}': {Sentence(reason)}",
        "Check that /var/lib (for a user who is not root: the home directory) is writable and has 40 MB free.", host, inner);

    public static FCtransException AgentStartFailed(string host, string reason, Exception? inner = null) => New(
        FailureKind.OperationFailed, $"The agent did not start on '{host}': {Sentence(reason)}",
        "It needs glibc 2.34 or later and libssl 3; check that the file system of its directory is not mounted noexec.", host, inner);

    public static FCtransException AgentRefused(string host, string reason, Exception? inner = null) => New(
        FailureKind.OperationFailed, $"'{host}' answered: {Sentence(reason)}", "", host, inner);

    public static FCtransException AgentInUse(string host, string who) => New(
        FailureKind.InvalidState, $"The agent can't be removed from '{host}': {Sentence(who)}",
        "Let these end first: stop the migration, or shut the split VM down.", host);

    public static FCtransException HostTimeout(string host, string what, TimeSpan limit, Exception? inner = null) => New(
        FailureKind.Timeout, $"'{host}' did not answer within {limit.TotalSeconds:0} s ({what}).",
        "Check the load on the host and the network; then try again.", host, inner);

    // VMs and migrations

    public static FCtransException VmNotFound(string vm, string where) => New(
        FailureKind.NotFound, $"There is no running VM '{vm}' on {where}.", "Get-KvmVm lists the VMs of the connected hosts.", vm);

    public static FCtransException VmAmbiguous(string vm, string hosts) => New(
        FailureKind.InvalidArgument, $"More than one connected host has a VM '{vm}': {hosts}.",
        "Pass the object that Get-KvmVm -KvmHost returns.", vm);

    public static FCtransException VmMemoryUnreadable(string vm, string reason, Exception? inner = null) => New(
        FailureKind.InvalidState, $"The memory of '{vm}' can't be read: {Sentence(reason)}", "", vm, inner);

    public static FCtransException VmCannotBeSplit(string vm, string reasons) => New(
        FailureKind.InvalidState, $"'{vm}' can't be split: {reasons}", "", vm);

    public static FCtransException HostCapabilityMissing(string host, string part, string details) => New(
        FailureKind.NotSupported, $"'{host}' can't be the {part}: {details}", "", host);

    public static FCtransException MainMemoryInvalid(string text, string reason) => New(
        FailureKind.InvalidArgument, $"-MainMemory '{text}': {Sentence(reason)}",
        "Give bytes (8GB, 256MB) or a share of the guest's memory (25%).", text);

    public static FCtransException MainHostTooSmall(string host, ulong needed, ulong available, string of) => New(
        FailureKind.ResourceUnavailable,
        $"'{host}' has no room for {ByteSize.Text(needed)} of the guest's memory: {ByteSize.Text(available)} {of} free.",
        "Give a smaller -MainMemory, free memory there, or enlarge its /dev/shm.", host);

    public static FCtransException SubHostsTooSmall(string hosts, ulong needed, ulong available) => New(
        FailureKind.ResourceUnavailable,
        $"The sub-hosts ({hosts}) have no room: {ByteSize.Text(needed)} would go there, {ByteSize.Text(available)} are free.",
        "Add a sub-host, give a larger -MainMemory, or free memory there.", hosts);

    public static FCtransException MainHostIsSource(string host) => New(
        FailureKind.InvalidArgument, $"'{host}' is where the VM runs: it can't be the main host of its own split.",
        "Name another -MainHost.", host);

    public static FCtransException HostNamedTwice(string host) => New(
        FailureKind.InvalidArgument, $"'{host}' has more than one part in this migration.",
        "Source, main host and every sub-host must be different hosts.", host);

    public static FCtransException TooManySubHosts(int count, int limit) => New(
        FailureKind.InvalidArgument, $"{count} sub-hosts were named; at most {limit} can hold one VM.", "Name fewer.", count);

    public static FCtransException CopiesImpossible(int subHosts, int limit) => New(
        FailureKind.InvalidArgument, $"Two copies of each page can't be kept on {subHosts} sub-hosts.",
        $"Name 2 to {limit} sub-hosts, or leave -Copies out.", subHosts);

    public static FCtransException DataAddressUnknown(string host) => New(
        FailureKind.InvalidArgument, $"It is not known under which address the other hosts reach '{host}'.",
        "Connect it with -DataAddress.", host);

    public static FCtransException DurationInvalid(string parameter, TimeSpan value) => New(
        FailureKind.InvalidArgument, $"-{parameter} {value} is no time that could be meant: it is shorter than a millisecond.",
        "Give seconds (30, 0.1), a number with a unit ('100ms', '30s', '5m', '1h') or hours, minutes and seconds (0:30:00).", value);

    public static FCtransException MigrationNotStarted(string vm, string host, string reason, Exception? inner = null) => New(
        FailureKind.OperationFailed,
        $"The split migration of '{vm}' did not begin, because of '{host}': {Sentence(reason)} "
        + "The VM runs on untouched and nothing is left on the hosts.", "", vm, inner);

    public static FCtransException MigrationFailed(string vm, string reason, string leftOver, bool vmEnded) => New(
        FailureKind.OperationFailed,
        $"The split migration of '{vm}' failed: {Sentence(reason)}{(vmEnded ? "" : " The VM runs on at the source.")}{leftOver}", "", vm);

    public static FCtransException MigrationAborted(string vm, string leftOver) => New(
        FailureKind.OperationFailed, $"The split migration of '{vm}' was stopped. The VM runs on at the source.{leftOver}", "", vm);

    public static FCtransException MigrationOutcomeUnknown(string vm, string reason) => New(
        FailureKind.OperationFailed,
        $"The source of the split migration of '{vm}' was lost at the moment of commitment: {Sentence(reason)} "
        + "The VM may already run on the main host.",
        "Do not start it again by hand. Look with Get-SplitMigration and Get-VmRemotePaging once the hosts answer.", vm);

    public static FCtransException MigrationTimeout(string vm, TimeSpan limit) => New(
        FailureKind.Timeout, $"The split migration of '{vm}' was given up after {limit.TotalSeconds:0} s. The VM runs on at the source.",
        "Give a longer -Timeout, or a longer -MaxDowntime if the guest writes faster than the network carries.", vm);

    public static FCtransException MigrationNotEnded(string vm, string state, TimeSpan limit) => New(
        FailureKind.Timeout, $"The split migration of '{vm}' has not ended after {limit.TotalSeconds:0.#} s (it is in state {state}), and goes on.",
        "Wait again, or Stop-SplitMigration.", vm);

    public static FCtransException MigrationNotFound(string what) => New(
        FailureKind.NotFound, $"No connected host knows a split migration {what}.", "Get-SplitMigration lists them.", what);

    public static FCtransException MigrationCommitted(string vm, Exception? inner = null) => New(
        FailureKind.InvalidState, $"The split migration of '{vm}' can't be stopped any more: the VM runs on the main host.",
        "", vm, inner);

    public static FCtransException PagingNotChanged(string vm, Exception inner) => New(
        FailureKind.InvalidState, $"The remote paging of '{vm}' was not changed: {Sentence(inner is Grpc.Core.RpcException e ? e.Status.Detail : inner.Message)}",
        "", vm, inner);

    public static FCtransException SettingMissing() => New(
        FailureKind.InvalidArgument, "Nothing was said that is to be changed.",
        "Give one or more of -MainMemory, -Prefetch, -EvictionPolicy and -Copies; Get-VmRemotePaging shows how they are.", null);

    public static FCtransException SubHostNotAdded(string host, string vm, string reason, string leftOver, Exception? inner = null) => New(
        FailureKind.InvalidState, $"'{host}' was not made a sub-host of '{vm}': {Sentence(reason)}{leftOver}", "", host, inner);

    public static FCtransException SubHostOutcomeUnknown(string host, string vm, Exception inner) => New(
        FailureKind.OperationFailed,
        $"Whether '{host}' has become a sub-host of '{vm}' is not known: the main host does not answer any more. {Sentence(inner.Message)}",
        "Look with Get-VmRemotePaging once it does. If it is not among the sub-hosts, add it again.", host, inner);

    public static FCtransException SubHostNotRemoved(string host, string vm, Exception inner) => New(
        FailureKind.InvalidState,
        $"The sub-host '{host}' of '{vm}' was not removed: {Sentence(inner is Grpc.Core.RpcException e ? e.Status.Detail : inner.Message)}", "", host, inner);

    public static FCtransException ConfirmationNeeded(string host, string vm, Exception inner) => New(
        FailureKind.InvalidState,
        $"Giving the sub-host '{host}' up would lose memory of '{vm}' for good, and nobody can be asked here whether that is meant.",
        "If the host is gone, say -Force.", vm, inner);

    public static FCtransException DataPortRefused(string host, string reason, Exception inner) => New(
        FailureKind.ResourceUnavailable, $"'{host}' can't open a port for guest memory: {Sentence(reason)}",
        "Connect with -DataAddress and an address that this host has.", host, inner);

    public static FCtransException MigrationEnded(string vm, string state) => New(
        FailureKind.InvalidState, $"The split migration of '{vm}' is not running: it is {state}.", "", vm);

    public static FCtransException ReportUnwritable(string path, string reason, Exception? inner = null) => New(
        FailureKind.InvalidArgument, $"The report '{path}' can't be written: {Sentence(reason)}",
        "Name a file in a folder that exists and that you may write to.", path, inner);

    public static FCtransException ReportsNeedFolder(string path, string vm) => New(
        FailureKind.InvalidArgument, $"'{path}' has the report of another migration already; that of '{vm}' was not written.",
        "Give -Path a folder that exists: each report gets a file of its own there.", path);

    public static FCtransException UnexpectedFailure(string host, Exception inner) => New(
        FailureKind.OperationFailed, $"'{host}': {Sentence(inner.Message)}", "", host, inner);
#pragma warning restore CS1591

    private static FCtransException New(
        FailureKind kind, string what, string remedy, object? target, Exception? inner = null,
        [CallerMemberName] string errorId = "") => new(errorId, kind, what, remedy, target, inner);

    /// <summary>Ends with a full stop, so that texts from elsewhere can stand in ours.</summary>
    private static string Sentence(string text)
    {
        text = text.Trim();
        return text.Length == 0 ? "(no reason was given)." : text[^1] is '.' or '!' or '?' ? text : text + ".";
    }
}
