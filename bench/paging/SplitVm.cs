using System.Globalization;
using FCtrans.Bench.Migrations;
using FCtrans.Client;
using FCtrans.Contracts;
using FCtrans.Lab;

namespace FCtrans.Bench.SplitVms;

/// <summary>A Linux guest that was split just now: it runs on the host b, and what does not fit lies on sub1 and sub2. Ends with this object.</summary>
internal sealed class SplitVm : IDisposable
{
    private static readonly TimeSpan s_patience = TimeSpan.FromMinutes(1);

    private readonly WorkerConnection _main;

    private SplitVm(LabGuest guest, WorkerConnection main, string splitId) => (Guest, _main, SplitId) = (guest, main, splitId);

    public LabGuest Guest { get; }

    public string SplitId { get; }

    /// <summary>Memory of its own that the main host's worker has, in MiB: not what it maps of files, which is the guest's.</summary>
    public double MainWorkerMebibytes => double.Parse(
        Guest.Host.Exec($"awk '/^RssAnon/ {{ print $2 / 1024 }}' /proc/$(cat /run/fctrans/{SplitId}/main/worker.pid)/status").Output, CultureInfo.InvariantCulture);

    /// <summary>What the main host's worker has had of processors since it began, in seconds.</summary>
    public double MainWorkerProcessorSeconds => 1e-9 * double.Parse(
        Guest.Host.Exec($"cat /proc/$(cat /run/fctrans/{SplitId}/main/worker.pid)/task/*/schedstat | awk '{{ s += $1 }} END {{ printf \"%d\", s }}'").Output,
        CultureInfo.InvariantCulture);

    /// <summary>The main host's figures now.</summary>
    public PagingStatus Paging => _main.GetStatusAsync(CancellationToken.None).GetAwaiter().GetResult().Paging;

    /// <param name="hosts">Have a, b, sub1 and sub2.</param>
    /// <param name="options">Of the guest.</param>
    /// <param name="prepare">What the guest does before it moves.</param>
    /// <param name="mainMemoryBytes">What may stay on the main host, asked when it is about to move.</param>
    /// <param name="trackUnused">Whether unused memory is tracked, in the migration and afterwards.</param>
    /// <param name="tls">Whether guest memory is encrypted on its way.</param>
    public static SplitVm Start(
        BenchHosts hosts, LabGuestOptions options, Action<LabGuest> prepare, Func<LabGuest, ulong> mainMemoryBytes, bool trackUnused = true, bool tls = true)
    {
        LabGuest guest = hosts["a"].StartGuest(options);
        try
        {
            prepare(guest);
            var (_, outcome) = SplitRun.Run(
                hosts, guest, "b", ["sub1", "sub2"], mainMemoryBytes(guest), change: request => request with { TrackUnused = trackUnused, Tls = tls });
            var main = hosts.Connection("b").ConnectWorker(outcome.SplitId, WorkerRole.Main, outcome.SourceSpec.VmName);
            var vm = new SplitVm(guest, main, outcome.SplitId);
            vm.WaitFor(p => p.State == "paging" && (!trackUnused || p.ReclaimTurns > 0));
            return vm;
        }
        catch
        {
            guest.Stop();
            throw;
        }
    }

    /// <summary>What a guest uses of its memory, its kernel included, in bytes.</summary>
    public static ulong UsedBytes(LabGuest guest) => (ulong)(guest.MemoryBytes - (guest.Invoke("meminfo")["MemFree"] << 10));

    /// <summary>Changes what may stay on the main host, and waits until it does.</summary>
    public void Limit(ulong bytes)
    {
        Set(new PagingSettings { MainMemoryBytes = bytes });
        WaitFor(p => p.ResidentPages << 12 <= bytes);
    }

    /// <summary>Changes what is set here, as the module does.</summary>
    public void Set(PagingSettings settings) => _main.SetPagingAsync(settings, CancellationToken.None).GetAwaiter().GetResult();

    public void WaitFor(Func<PagingStatus, bool> state)
    {
        PagingStatus? last = null;
        if (!SpinWait.SpinUntil(
            () =>
            {
                if (state(last = Paging))
                {
                    return true;
                }

                Thread.Sleep(20);
                return false;
            },
            s_patience))
        {
            throw new LabException($"The split VM did not become what was waited for: {last}");
        }
    }

    /// <summary>A figure of a VM that lost a byte is worth nothing.</summary>
    public void Check()
    {
        var stat = Guest.Invoke("stat", TimeSpan.FromMinutes(2));
        var paging = Paging;
        if (stat["errors"] != 0 || paging.Errors != 0 || paging.LostPages != 0)
        {
            throw new LabException($"The guest's oracle or the pager found errors: {stat} {paging}");
        }
    }

    public void Dispose() => Guest.Stop();
}
