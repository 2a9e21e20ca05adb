using FCtrans.Agent.Hypervisor;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Introspection;
using FCtrans.Agent.Memory;
using FCtrans.Lab;

namespace FCtrans.Vm.Tests.Introspection;

/// <summary>A Linux guest on a lab host of its own, with its memory and its monitor open.</summary>
internal sealed class GuestUnderTest : IDisposable
{
    private readonly FCtrans.Lab.Lab _lab = new();

    public GuestUnderTest(string kernel, long mebibytes, string kernelArguments = "", params string[] qemuArguments)
        : this(kernel, mebibytes, kexec: false, kernelArguments, qemuArguments)
    {
    }

    public GuestUnderTest(string kernel, long mebibytes, bool kexec, string kernelArguments, params string[] qemuArguments)
    {
        try
        {
            Host = _lab.AddHost("source", (mebibytes + 512) << 20);
            Guest = Host.StartGuest(new()
            {
                // The pairs that Debian has: bookworm, and bookworm-backports.
                Qemu = kernel.StartsWith("6.12", StringComparison.Ordinal) ? "10.0" : "7.2",
                Name = "guest", Kernel = kernel, MemoryBytes = mebibytes << 20, KernelArguments = kernelArguments, Kexec = kexec,
                QemuArguments = qemuArguments,
            });
            Monitor = QemuMonitor.Connect(Host.PathOf(Guest.MonitorPath), TimeSpan.FromSeconds(10));
            var segments = MemoryTree.ParseFlatView(Monitor.HumanMonitor("info mtree -f"))
                .Where(range => range.Region == "ram0")
                .Select(range => new GuestRamSegment(range.Start, range.Bytes, range.Offset))
                .ToArray();
            string path = Host.PathOf(Guest.RamPath);
            Ram = new GuestRam([new RamBlock("ram0", 0, (mebibytes << 20) >> 12, new(0), SparseFile.Open(path, write: true), path)], segments);
        }
        catch
        {
            _lab.Dispose();
            throw;
        }
    }

    public LabHost Host { get; }

    public LabGuest Guest { get; }

    public GuestRam Ram { get; }

    public QemuMonitor Monitor { get; }

    /// <summary>Its QEMU, which runs in the PID namespace of a lab host, below ours.</summary>
    public QemuProcess Process => Directory.EnumerateDirectories("/proc").Select(d => Path.GetFileName(d))
        .Where(name => int.TryParse(name, out int pid) && ProcessFiles.CommandLine(pid).Contains(Guest.Uuid.ToString()))
        .Select(name => QemuProcesses.OpenAnywhere(int.Parse(name, System.Globalization.CultureInfo.InvariantCulture)))
        .First(process => process is not null)!;

    public UnusedPages OpenUnused(bool mayMap) => UnusedPages.Open(Ram, mayMap, () => GuestProcessor.Ask(Monitor));

    /// <summary>Output of a shell command in the guest.</summary>
    public string Shell(string command) => Uri.UnescapeDataString(Guest.Invoke("sh " + command, TimeSpan.FromSeconds(60)).Values["output"]);

    public long MemFreePages() => Guest.Invoke("meminfo")["MemFree"] / 4;

    public void Dispose()
    {
        Monitor.Dispose();
        Ram.Dispose();
        _lab.Dispose();
    }
}
