using System.Globalization;
using FCtrans.Agent.Hypervisor;
using FCtrans.Agent.Injection;
using FCtrans.Agent.Interop;
using FCtrans.Agent.Memory;
using FCtrans.Lab;

namespace FCtrans.Kernel.Tests.Paging;

/// <summary>
/// The bare guest under KVM, on a lab host of its own, its memory registered for paging: its faults are raised by the kernel, inside KVM_RUN, and
/// not by an instruction of QEMU's.
/// </summary>
internal sealed class BareGuest : IWorkingGuest
{
    /// <summary>There is one lab in an enclosure; tests of other classes run at the same time.</summary>
    private static readonly SemaphoreSlim s_one = new(1);

    private readonly FCtrans.Lab.Lab _lab;
    private readonly LabGuest _guest;

    /// <param name="mebibytes">Its memory, all of it.</param>
    /// <param name="held">How much of it the guest writes and verifies.</param>
    public BareGuest(int mebibytes, int held, int userfaultfds)
    {
        s_one.Wait();
        try
        {
            _lab = new();
            var host = _lab.AddHost("kvm", (mebibytes + 64L) << 20);
            _guest = host.StartGuest(new() { Name = "bare", Bare = true, MemoryBytes = (long)mebibytes << 20 });
            using (var monitor = QemuMonitor.Connect(host.PathOf(_guest.MonitorPath), TimeSpan.FromSeconds(20)))
            {
                UsesKvm = monitor.HumanMonitor("info kvm").Contains("kvm support: enabled", StringComparison.Ordinal);
            }

            _guest.Invoke(string.Create(CultureInfo.InvariantCulture, $"fill {held}"));
            RamPath = host.PathOf(_guest.RamPath);
            Pages = ((long)mebibytes << 20) >> PageIndex.PageShift;
            // It runs in the host's own PID namespace, below ours.
            ProcessId = Directory.EnumerateDirectories("/proc").Select(Path.GetFileName)
                .Select(name => int.TryParse(name, NumberStyles.None, CultureInfo.InvariantCulture, out int pid) ? pid : -1)
                .First(pid => pid > 0 && ProcessFiles.CommandLine(pid).Contains(_guest.Uuid.ToString()));
            Address = ProcessFiles.Mappings(ProcessId)
                .First(m => m.IsSharedWritable && m.Path.EndsWith(Path.GetFileName(_guest.RamPath), StringComparison.Ordinal)).FileStart;
            using var ram = PagingLab.OpenRam(this, Pages);
            PagingLab.Register(ram, UserfaultfdInjector.Open(ProcessId, userfaultfds, UffdFeatures.Paging)).Dispose();
            UffdNumbers = UserfaultfdInjector.FindIn(ProcessId);
        }
        catch
        {
            _lab?.Dispose();
            s_one.Release();
            throw;
        }
    }

    public bool UsesKvm { get; }

    public long Pages { get; }

    public int ProcessId { get; }

    public IReadOnlyList<int> UffdNumbers { get; }

    public string RamPath { get; }

    public HostAddress Address { get; }

    public OracleAnswer Invoke(string command) => _guest.Invoke(command, TimeSpan.FromSeconds(120));

    /// <summary>It rewrites every third page that it verifies.</summary>
    public void Run() => Invoke("run rewrite=3");

    public (long Pages, long Errors, long BusErrors) StopAndVerify()
    {
        Invoke("pause");
        var verified = Invoke("verify");
        // Of a memory error it dies.
        return (verified["pages"], verified["total_errors"], 0);
    }

    /// <summary>Waits until it has looked at every page that it holds, after this.</summary>
    public OracleAnswer WaitForFullPass() => _guest.WaitForFullPass(TimeSpan.FromSeconds(120));

    /// <summary>What it has said unasked: each mismatch.</summary>
    public IReadOnlyList<string> Log => _guest.Console.Log;

    public void Dispose()
    {
        _lab.Dispose();
        s_one.Release();
    }
}
