using FCtrans.Agent.Hypervisor;
using FCtrans.Agent.Introspection;
using FCtrans.Agent.Memory;
using FCtrans.Lab;

namespace FCtrans.Bench;

/// <summary>A Linux guest on a lab host of its own, with its memory and its monitor open as the agent opens them.</summary>
internal sealed class BenchGuest : IDisposable
{
    private readonly FCtrans.Lab.Lab _lab = new();

    public BenchGuest(long memoryBytes, long hostBytes, int cpus = 2)
    {
        try
        {
            var host = _lab.AddHost("bench", hostBytes);
            Guest = host.StartGuest(new()
            {
                Name = "bench", MemoryBytes = memoryBytes, Cpus = cpus, BootTimeout = TimeSpan.FromMinutes(10),
                QemuArguments = memoryBytes > 32L << 30 ? ["-cpu", "max"] : [],
            });
            Monitor = QemuMonitor.Connect(host.PathOf(Guest.MonitorPath), TimeSpan.FromSeconds(10));
            Process = FindProcess();
            Ram = GuestRamFactory.Open(Process, Monitor);
        }
        catch
        {
            _lab.Dispose();
            throw;
        }
    }

    public LabGuest Guest { get; }

    public QemuMonitor Monitor { get; }

    public QemuProcess Process { get; }

    public GuestRam Ram { get; }

    public UnusedPages OpenUnused() => UnusedPages.Open(Ram, mayMap: true, () => GuestProcessor.Ask(Monitor));

    public OracleAnswer Ask(string command) => Guest.Invoke(command, TimeSpan.FromMinutes(5));

    public void Dispose()
    {
        Monitor.Dispose();
        Ram.Dispose();
        _lab.Dispose();
    }

    /// <summary>The lab's hosts have PID namespaces of their own, which this process sees into.</summary>
    private QemuProcess FindProcess()
    {
        foreach (string directory in Directory.EnumerateDirectories("/proc"))
        {
            if (int.TryParse(Path.GetFileName(directory), out int pid) &&
                ProcessFiles.CommandLine(pid).Contains(Guest.Uuid.ToString()) && QemuProcesses.OpenAnywhere(pid) is { } process)
            {
                return process;
            }
        }

        throw new InvalidOperationException("The guest's QEMU was not found.");
    }
}
