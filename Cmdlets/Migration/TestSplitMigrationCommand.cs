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
    [Alias("BandwidthLimitBytesPerSecond")]
    [ValidateRange(0, long.MaxValue)]
    [ByteCount]
    public long MaxBytesPerSecond { get; set; }

    /// <inheritdoc/>
    protected override void ProcessRecord() => ForVms(vm =>
    {
        SplitMigrationRequest request = Request(vm) with { BandwidthLimitBytesPerSecond = (ulong)MaxBytesPerSecond };
        WriteObject(Await(async stop => new SplitMigrationTest(await SplitMigrationForecast.MakeAsync(request, stop).ConfigureAwait(false))));
    });
}
