using System.Management.Automation;
using FCtrans.Client;
using FCtrans.Contracts;

namespace FCtrans.Commands;

/// <summary>A VM as a parameter takes it: the object from Get-KvmVm, or the name of a VM on one of the connected hosts.</summary>
public sealed class VmReference
{
    private readonly KvmVm? _vm;
    private readonly string _name;

    /// <summary>A VM by its object.</summary>
    public VmReference(KvmVm vm)
    {
        _vm = vm;
        _name = vm.Name;
    }

    /// <summary>A VM by its name; looked up on all connected hosts when it is used.</summary>
    public VmReference(string name) => _name = name;

    /// <inheritdoc/>
    public override string ToString() => _name;

    /// <summary>The VM's object.</summary>
    /// <exception cref="FCtransException">VmNotFound, VmAmbiguous, HostNotConnected.</exception>
    internal async Task<KvmVm> ResolveAsync(CancellationToken cancellation)
    {
        if (_vm is not null)
        {
            return _vm.KvmHost.IsDisconnected ? throw Failure.HostNotConnected(_vm.KvmHost.Name) : _vm;
        }

        KvmVm[] found = await SearchAsync(name => string.Equals(name, _name, StringComparison.OrdinalIgnoreCase), cancellation).ConfigureAwait(false);

        // QEMU tells big letters from small: where both are there, the one that was written is meant.
        return One(_name, found.Any(v => v.Name == _name) ? [.. found.Where(v => v.Name == _name)] : found);
    }

    /// <summary>The VMs' objects: one, or all that a name with wildcards matches, by their names; none is no error then.</summary>
    /// <exception cref="FCtransException">VmNotFound, VmAmbiguous, HostNotConnected.</exception>
    internal async Task<KvmVm[]> ResolveAllAsync(CancellationToken cancellation)
    {
        if (_vm is not null || !WildcardPattern.ContainsWildcardCharacters(_name))
        {
            return [await ResolveAsync(cancellation).ConfigureAwait(false)];
        }

        var pattern = new WildcardPattern(_name, WildcardOptions.IgnoreCase);
        KvmVm[] found = await SearchAsync(pattern.IsMatch, cancellation).ConfigureAwait(false);

        // Two VMs of one name on two hosts are both meant here; one VM that is being moved is still one.
        return [.. found.GroupBy(v => (v.Name, v.SplitId.Length > 0 ? v.SplitId : v.HostName)).Select(g => One(g.Key.Name, [.. g]))
            .OrderBy(v => v.Name, StringComparer.OrdinalIgnoreCase)];
    }

    private static Task<KvmVm[]> SearchAsync(Func<string, bool> isMeant, CancellationToken cancellation) => HostRegistry.SearchAsync(
        h => h.ListVmsAsync(cancellation),
        all => all.SelectMany(p => p.Answer.Where(v => isMeant(v.Name)).Select(v => new KvmVm(p.Host, v))));

    private static KvmVm One(string name, KvmVm[] found)
    {
        // While a VM is moved, its main host has a QEMU of the same name that waits for it: one VM all the same.
        if (found.Length > 1 && found[0].SplitId.Length > 0 && found.All(v => v.SplitId == found[0].SplitId))
        {
            return found.FirstOrDefault(v => v.State == "running") ?? found[0];
        }

        return found.Length switch
        {
            1 => found[0],
            0 => throw Failure.VmNotFound(name, "any connected host"),
            _ => throw Failure.VmAmbiguous(name, string.Join(", ", found.Select(v => v.HostName))),
        };
    }
}
