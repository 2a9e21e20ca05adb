using System.Management.Automation;
using FCtrans.Client;

namespace FCtrans.Commands;

/// <summary>Test-SplitMigration: checks every precondition of a split migration on every host and says what would go where; changes nothing.</summary>
[Cmdlet(VerbsDiagnostic.Test, "SplitMigration")]
[OutputType(typeof(SplitMigrationTest))]
public sealed class TestSplitMigrationCommand : SplitPlanCmdlet
{
    /// <summary>Bytes a second, to all hosts together: what the time is reckoned with. Default: a link of 10 Gbit/s.</summary>
    [Parameter]
    [ValidateRange(0, long.MaxValue)]
    public long BandwidthLimitBytesPerSecond { get; set; }

    /// <inheritdoc/>
    protected override void ProcessRecord() => ForItem(VM.ToString(), () =>
    {
        KvmHost main = MainHost.Resolve();
        KvmHost[] subs = [.. SubHost.Select(s => s.Resolve())];
        WriteObject(Await(async stop =>
        {
            KvmVm vm = await VM.ResolveAsync(stop).ConfigureAwait(false);
            var request = Request(vm, main, subs) with { BandwidthLimitBytesPerSecond = (ulong)BandwidthLimitBytesPerSecond };
            return new SplitMigrationTest(await SplitMigrationForecast.MakeAsync(request, stop).ConfigureAwait(false));
        }));
    });
}
