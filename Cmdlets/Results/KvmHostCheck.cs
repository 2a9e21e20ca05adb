using FCtrans.Contracts;

namespace FCtrans;

/// <summary>One thing that was checked on a host, and what to do about it.</summary>
public sealed class KvmHostCheck
{
    internal KvmHostCheck(KvmHost host, HostCheck check)
    {
        HostName = host.Name;
        Check = check.Name;
        Result = check.Result switch { "passed" => "Passed", "warning" => "Warning", _ => "Failed" };
        Detail = check.Detail;
        Remedy = check.Remedy;
        NeededBy = [.. check.Parts];
    }

    /// <summary>The host.</summary>
    public string HostName { get; }

    /// <summary>What was checked: root, userfaultfd, pagemap-scan, ptrace, ram-directory, qemu, memory, libvirt, reachable, ….</summary>
    public string Check { get; }

    /// <summary>Passed, Warning (it works, but not as well as it could) or Failed.</summary>
    public string Result { get; }

    /// <summary>What was seen.</summary>
    public string Detail { get; }

    /// <summary>What to do; empty when it passed.</summary>
    public string Remedy { get; }

    /// <summary>Which parts of a split need it: source, main, sub.</summary>
    public string[] NeededBy { get; }

    /// <inheritdoc/>
    public override string ToString() => $"{HostName}: {Check}: {Result}";
}
